/* SPDX-License-Identifier: MIT */
/*
 * The inside of the parser of vm.json.
 *
 *   definition.c          the way through: bytes, jansson, places, reading, judgement
 *   definition_syntax.c   why a text is no JSON, in words
 *   definition_fields.c   the tables: which keys there are, and what each may say
 *   definition_read.c     reads objects and lists by their tables
 *   definition_take.c     reads all other values
 *   definition_say.c      what a key may be, and what it is, in words
 *   definition_rules.c    what does not go together
 *   definition_problems.c sentences, collected and told in the order of the file
 *
 * The tables are the one list of keys. docs/vm.schema.json says the same; a test walks both.
 */
#pragma once

#include "vmm/definition.h"
#include "vmm/json_places.h"
#include <jansson.h>

/* --- tables ------------------------------------------------------------------------------- */

enum definition_kind {
    KIND_NUMBER = 1, /* a whole one, from min to max */
    KIND_CHOICE,     /* a number that is one of the words */
    KIND_BOOL,
    KIND_WORD, /* a text that is one of the words */
    KIND_TEXT, /* of min to max characters, and nothing that `wrong` names */
    KIND_PATH, /* the same; it is made whole */
    KIND_SIZE, /* a text, "512M"; from min to max bytes */
    KIND_MAC,
    KIND_FORWARD,
    KIND_OBJECT,
    KIND_LIST, /* of at most max items */
};

struct definition_object;

struct definition_field {
    const char *name;
    enum definition_kind kind;
    bool required;
    bool inverted;  /* BOOL: what is stored is the contrary */
    bool inside;    /* TEXT: the characters themselves are stored, not a pointer to them */
    bool allocated; /* LIST: what is stored is a pointer to the items */
    uint64_t min, max;
    uint64_t unit;            /* NUMBER: what is stored is so many times the number; 0: once */
    const char *unit_name;    /* for sentences: "a number of MiB" */
    const char *const *words; /* end with NULL */
    unsigned first_word;      /* WORD: what is stored for the first */
    const char *(*wrong)(const char *text); /* why the text is none: "must be ..."; NULL: it is */
    size_t offset, size;                    /* of what is stored; size 0: nothing is */
    size_t said;                            /* offset of a bool that tells it is there; 0: none */
    size_t count;                           /* LIST: offset of the unsigned number of items */
    const struct definition_object *object; /* OBJECT; its fields' offsets begin at `offset` */
    const struct definition_field *item;    /* LIST: what its items are; `size` is that of one */
    const struct definition_field *instead; /* it may also be this */
};

enum { DEFINITION_MAX_FIELDS = 16 };

struct definition_reader;
struct definition_found;

struct definition_object {
    const struct definition_field *fields;
    size_t count;
    void (*begin)(void *base); /* defaults that are not zero; may be NULL */
    void (*check)(struct definition_reader *reader, const struct definition_found *found);
};

extern const struct definition_object definition_root;

/* --- problems ----------------------------------------------------------------------------- */

enum { DEFINITION_MAX_PROBLEMS = 100 };

struct definition_problem {
    struct json_spot spot;
    unsigned order;
    char *sentence;
};

struct definition_problems {
    const char *name; /* what the sentences call the text */
    struct definition_problem list[DEFINITION_MAX_PROBLEMS];
    unsigned count; /* of all, be they in the list or not */
    bool no_memory;
};

/* "NAME:LINE:COLUMN: ..." */
void definition_problem(struct definition_problems *problems, struct json_spot spot,
                        const char *fmt, ...) printf_like(3, 4);

/* Sorts them, tells them, and says what definition_parse says: 0 where there are none. */
int definition_judge(struct definition_problems *problems, const struct definition_judge *judge,
                     struct err *err) must_check;
void definition_forget(struct definition_problems *problems);

/* --- reading ------------------------------------------------------------------------------ */

struct definition_reader {
    struct definition *definition;
    const char *folder;
    struct json_places places;
    struct definition_problems problems;
};

/* What was found of an object: for the rules. */
struct definition_found {
    const struct definition_object *object;
    void *base;
    uint32_t place;
    uint32_t said[DEFINITION_MAX_FIELDS];   /* the value's place, or JSON_NOWHERE */
    bool good[DEFINITION_MAX_FIELDS];       /* said, and nothing is wrong with it */
    uint64_t number[DEFINITION_MAX_FIELDS]; /* of a good number, word (its place) or BOOL */
};

/* "PATH ...", at the value. */
void definition_wrong(struct definition_reader *reader, uint32_t place, const char *fmt, ...)
    printf_like(3, 4);

/* What the field may be: "a number from 1 to 1024". */
void definition_describe(const struct definition_field *field, char *to, size_t room);
/* What was written there. */
void definition_show(const struct definition_reader *reader, uint32_t place, char *to, size_t room);
/* "raw" or "qcow2" */
void definition_list(const char *const *words, const char *quote, const char *last, char *to,
                     size_t room);

/* One value, on its way into the struct at `base`. */
struct definition_taking {
    struct definition_reader *reader;
    const struct definition_field *field; /* as the table has it, and as sentences call it */
    const struct definition_field *form;  /* the same, or what it may be instead */
    const char *text;                     /* of a string */
    const json_t *value;
    uint32_t place;
    char *base;
    uint64_t number; /* result, see definition_found */
};

/* All kinds but OBJECT and LIST. False where it is wrong, which is told. */
bool definition_take(struct definition_taking *taking);
/* "cpus must be a number from 1 to 1024, not "two"". False, for those who return it. */
bool definition_must_be(const struct definition_taking *taking);

void definition_read(struct definition_reader *reader, const json_t *root);

/* By name of the key. place: JSON_NOWHERE where it is not said. bad: it is said, and wrong. */
uint32_t definition_place(const struct definition_found *found, const char *name);
bool definition_is_bad(const struct definition_found *found, const char *name);
/* What is said and good; else `otherwise`. */
uint64_t definition_number(const struct definition_found *found, const char *name,
                           uint64_t otherwise);

/* From the definition's arena: zeroed, and gone with it. NULL is told in the end. */
void *definition_allocate(struct definition_reader *reader, size_t size);
/* A path as the VM's folder has it, in the arena. NULL where that cannot be, which is told. */
const char *definition_whole_path(struct definition_reader *reader, uint32_t place,
                                  const char *path);

/* --- rules -------------------------------------------------------------------------------- */

void definition_begin_net(void *base);
void definition_check_boot(struct definition_reader *reader, const struct definition_found *found);
void definition_check_disk(struct definition_reader *reader, const struct definition_found *found);
void definition_check_net(struct definition_reader *reader, const struct definition_found *found);
void definition_check_seed(struct definition_reader *reader, const struct definition_found *found);
void definition_check_epoch(struct definition_reader *reader, const struct definition_found *found);
void definition_check_ft(struct definition_reader *reader, const struct definition_found *found);
void definition_check_root(struct definition_reader *reader, const struct definition_found *found);

const char *definition_wrong_serial(const char *text);
const char *definition_wrong_device(const char *text);
const char *definition_wrong_user(const char *text);
const char *definition_wrong_hostname(const char *text);
const char *definition_wrong_peer(const char *text);
const char *definition_wrong_witness(const char *text);

/* --- syntax ------------------------------------------------------------------------------- */

/* Bytes that no JSON has, before anybody parses: false, and one problem. */
bool definition_check_bytes(struct definition_problems *problems, const char *text, size_t length);
/* Why jansson could not parse the text: one problem. */
void definition_explain(struct definition_problems *problems, const char *text, size_t length,
                        const json_error_t *error);
