#include "log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nvenc_abi.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* What the caller of a test sets. */

const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value && *value ? atoi(value) : otherwise;
}

int listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length])) return 1;
    return 0;
}

/* NVENC_EMULATOR_FAIL: "CALL=STATUS" or "CALL@N=STATUS", with commas between; @N: from the Nth call on. */
int failure(const char *call) {
    enum { CALLS = 64 };
    static struct { const char *call; int count; } counted[CALLS];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *list = text("NVENC_EMULATOR_FAIL", "");
    if (!*list) return NV_ENC_SUCCESS;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < CALLS - 1 && counted[i].call && strcmp(counted[i].call, call)) i++;
    counted[i].call = call;
    int count = ++counted[i].count;
    pthread_mutex_unlock(&lock);
    size_t length = strlen(call);
    for (const char *at = list; (at = strstr(at, call)); at += length) {
        if (at != list && at[-1] != ',') continue;
        int from = 1, status = 0;
        if (sscanf(at + length, "=%d", &status) == 1 || sscanf(at + length, "@%d=%d", &from, &status) == 2)
            if (count >= from) return status;
    }
    return NV_ENC_SUCCESS;
}

double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* The log: one JSON object a call. */

void add(Line *line, const char *format, ...) {
    va_list values;
    va_start(values, format);
    size_t room = sizeof line->json - line->length;
    int count = vsnprintf(line->json + line->length, room, format, values);
    va_end(values);
    if (count > 0 && (size_t)count < room) line->length += (size_t)count;
}

Line *begin(const char *call, int session) {
    static _Thread_local Line line;
    line.length = 0;
    line.said[0] = 0;
    add(&line, "{\"call\": \"%s\", \"ms\": %.3f, \"session\": %d", call, now_ms(), session);
    return &line;
}

int end(Line *line, int status) {
    const char *path = getenv("NVENC_EMULATOR_LOG");
    if (line->said[0]) add(line, ", \"why\": \"%s\"", line->said);
    add(line, ", \"status\": %d}\n", status);
    if (path && *path) {
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (file >= 0) {
            if (write(file, line->json, line->length) < 0) perror(path);
            close(file);
        }
    }
    return status;
}

static void add_field(Line *line, const u8 *base, const AbiField *field);

void add_fields(Line *line, const void *base, const AbiField *fields) {
    add(line, "{");
    for (const AbiField *field = fields; field->name; field++) {
        add(line, "%s\"%s\": ", field == fields ? "" : ", ", field->name);
        add_field(line, base, field);
    }
    add(line, "}");
}

static void add_field(Line *line, const u8 *base, const AbiField *field) {
    u64 value = 0;
    if (field->kind == ABI_STRUCT) {
        add_fields(line, base + field->bit / 8, field->fields);
        return;
    }
    if (field->kind == ABI_GUID) {
        for (size_t i = 0; abi_guids[i].name; i++)
            if (!memcmp(base + field->bit / 8, &abi_guids[i].guid, sizeof(GUID))) {
                add(line, "\"%s\"", abi_guids[i].name);
                return;
            }
        add(line, "\"unknown\"");
        return;
    }
    for (u32 i = 0; i < field->bits; i++) value |= (u64)(base[(field->bit + i) / 8] >> (field->bit + i) % 8 & 1) << i;
    if (field->kind == ABI_ENUM)
        for (const AbiName *name = field->names; name->name; name++)
            if (name->value == value) {
                add(line, "\"%s\"", name->name);
                return;
            }
    if (field->kind == ABI_SIGNED && value >> (field->bits - 1) & 1 && field->bits < 64) value |= ~0ull << field->bits;
    if (field->kind == ABI_SIGNED) add(line, "%lld", (long long)value);
    else add(line, "%llu", (unsigned long long)value);
}
