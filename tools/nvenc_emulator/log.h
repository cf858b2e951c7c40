/* What the environment asks of the emulator, and the log of what its client asks. README.md has both. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* A variable of the environment; `otherwise` when it is not set or empty. */
const char *text(const char *name, const char *otherwise);
int number(const char *name, int otherwise);

/* Whether a list with commas has the word. */
int listed(const char *list, const char *word);

/* The status that NVENC_EMULATOR_FAIL wants of this call; counts the calls of each name. */
int failure(const char *call);

/* Milliseconds of a clock that never goes back. */
double now_ms(void);

typedef struct {
    size_t length;
    char said[512]; /* why the call is refused */
    char json[1 << 16];
} Line;

struct AbiField;

/* One JSON object a call: begin it, add members, end it with the status, which comes back. One a thread at a time. */
Line *begin(const char *call, int session);
void __attribute__((format(printf, 2, 3))) add(Line *line, const char *format, ...);
void add_fields(Line *line, const void *base, const struct AbiField *fields);
int end(Line *line, int status);
