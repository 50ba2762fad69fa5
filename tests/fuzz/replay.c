/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target over every file of its corpus, with any compiler: replay DIRECTORY. What was
 * once found stays found. A target says that something is wrong by aborting, and the last name on
 * stderr is that of the input that did it.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* All bytes of a file, exactly as many as it has, so that ASan sees a read past the end. */
static uint8_t *read_file(const char *path, size_t *ret_length)
{
    FILE *file = fopen(path, "re");
    long length = 0;

    if (!file || fseek(file, 0, SEEK_END) < 0 || (length = ftell(file)) < 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    rewind(file);
    uint8_t *bytes = malloc(length ? (size_t)length : 1);
    if (!bytes || fread(bytes, 1, (size_t)length, file) != (size_t)length) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    fclose(file);
    *ret_length = (size_t)length;
    return bytes;
}

static void run_file(const char *path)
{
    size_t length;
    uint8_t *bytes = read_file(path, &length);

    fprintf(stderr, "%s: %zu bytes\n", path, length);
    LLVMFuzzerTestOneInput(bytes, length);
    free(bytes);
}

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    char path[4096];

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return EXIT_FAILURE;
    }
    int count = scandir(argv[1], &entries, is_input, alphasort);
    if (count < 0) {
        perror(argv[1]);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%s", argv[1], entries[i]->d_name);
        run_file(path);
        free(entries[i]);
    }
    free(entries);
    printf("%d passed, 0 failed\n", count);         /* one that fails does not come back here */
    return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE; /* an empty corpus proves nothing */
}
