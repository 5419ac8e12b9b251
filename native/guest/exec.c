// SPDX-License-Identifier: Apache-2.0
//
// The kernel answers EFAULT where a system call's argument lies in memory that a forked child has not got yet; only a load makes
// the fault handler ask the parent for it (lend.c). So, in such a child, what exec is given is looked at first.
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <unistd.h>

#include "exec.h"
#include "pool.h"
#include "system.h"

static int (*real_execve)(const char *, char *const[], char *const[]);
static int (*real_execvpe)(const char *, char *const[], char *const[]);
static int (*real_fexecve)(int, char *const[], char *const[]);
static int (*real_chdir)(const char *);

void exec_open(void) {
    if (real_chdir != NULL) return;
    real_execve = (int (*)(const char *, char *const[], char *const[]))dlsym(RTLD_NEXT, "execve");
    real_execvpe = (int (*)(const char *, char *const[], char *const[]))dlsym(RTLD_NEXT, "execvpe");
    real_fexecve = (int (*)(int, char *const[], char *const[]))dlsym(RTLD_NEXT, "fexecve");
    real_chdir = (int (*)(const char *))dlsym(RTLD_NEXT, "chdir");
}

static void look_at(const char *text) {
    if (text == NULL) return;
    const volatile char *byte = text;
    while (*byte != 0) byte++;
}

void exec_look_at(const char *text) {
    if (VSMP_UNLIKELY(pool_inherits())) look_at(text);
}

static void look_at_all(char *const list[]) {
    for (char *const volatile *each = list; each != NULL && *each != NULL; each++) look_at(*each);
}

static void look_at_arguments(const char *path, char *const arguments[], char *const environment[]) {
    exec_open();
    if (VSMP_LIKELY(!pool_inherits())) return;
    look_at(path);
    look_at_all(arguments);
    look_at_all(environment);
}

VSMP_EXPORT int execve(const char *path, char *const arguments[], char *const environment[]) {
    look_at_arguments(path, arguments, environment);
    return real_execve(path, arguments, environment);
}

VSMP_EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[]) {
    look_at_arguments(file, arguments, environment);
    return real_execvpe(file, arguments, environment);
}

VSMP_EXPORT int fexecve(int fd, char *const arguments[], char *const environment[]) {
    look_at_arguments(NULL, arguments, environment);
    return real_fexecve(fd, arguments, environment);
}

VSMP_EXPORT int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }
VSMP_EXPORT int execvp(const char *file, char *const arguments[]) { return execvpe(file, arguments, environ); }

// Collects a list of arguments that ends with NULL into an array on the stack; `last` is the parameter before the dots.
#define COLLECT(array, last, list)                                                                                               \
    va_list list;                                                                                                                \
    size_t count = 1;                                                                                                            \
    va_start(list, last);                                                                                                        \
    while (va_arg(list, char *) != NULL) count++;                                                                                \
    va_end(list);                                                                                                                \
    char **array = alloca((count + 1) * sizeof *array);                                                                          \
    va_start(list, last);                                                                                                        \
    array[0] = (char *)(uintptr_t)last;                                                                                          \
    for (size_t i = 1; i <= count; i++) array[i] = va_arg(list, char *);

VSMP_EXPORT int execl(const char *path, const char *first, ...) {
    COLLECT(arguments, first, list)
    va_end(list);
    return execve(path, arguments, environ);
}

VSMP_EXPORT int execlp(const char *file, const char *first, ...) {
    COLLECT(arguments, first, list)
    va_end(list);
    return execvpe(file, arguments, environ);
}

VSMP_EXPORT int execle(const char *path, const char *first, ...) {
    COLLECT(arguments, first, list)
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return execve(path, arguments, environment);
}

VSMP_EXPORT int chdir(const char *path) {
    exec_open();
    exec_look_at(path);
    return real_chdir(path);
}
