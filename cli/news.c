/* SPDX-License-Identifier: MIT */
#include "cli/news.h"

#include "core/log.h"
#include "vmm/journal.h"

int news_settle(struct news *ret_news, struct identity *ret_identity, struct folder *folder,
                bool keep, struct err *err)
{
    /* A copy's journal goes when it becomes a VM of its own. */
    struct news news = {.keep = keep, .cut_off = journal_is_of_a_run(folder->fd)};
    int ret = identity_settle(ret_identity, folder, keep, &news.found, err);
    if (ret == 0)
        *ret_news = news;
    return ret;
}

void news_tell(const struct news *news, const struct identity *identity,
               const struct folder *folder, bool goes_on)
{
    char uuid[37];
    if (news->found != IDENTITY_COPIED && news->found != IDENTITY_MOVED)
        return;
    identity_format_uuid(identity->uuid, uuid);
    if (news->found == IDENTITY_COPIED)
        log_info("%s is a copy: it is a VM of its own now, with a new UUID (%s) and new MACs",
                 folder->name, uuid);
    else
        log_info(news->keep ? "%s is elsewhere now and stays the same VM (keep)"
                            : "%s was moved here: it stays the same VM",
                 folder->name);
    if (news->cut_off && !goes_on)
        log_info("%s was not shut down before: its guest finds its disks as after a power cut",
                 folder->name);
}
