/* Whole files: mapped, read, and written so that nobody sees a part of one. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux reads and writes at most this much at a time. */
static const size_t TRANSFER_LIMIT = (size_t)1 << 30;

static int open_retrying(const char *path, int flags, mode_t mode)
{
    int descriptor;
    do {
        descriptor = open(path, flags | O_CLOEXEC, mode);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

/* ---- mapping ------------------------------------------------------------------------------ */

onestep_status mapped_file_open(mapped_file *file, const char *path, onestep_error *error)
{
    *file = (mapped_file){0};
    onestep_status status = ONESTEP_OK;
    /* Opening a FIFO must not wait for a writer. */
    int descriptor = open_retrying(path, O_RDONLY | O_NONBLOCK, 0);
    if (descriptor < 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened: %m", path);
    }
    struct stat information;
    if (fstat(descriptor, &information) != 0) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be examined: %m", path);
        goto done;
    }
    if (!S_ISREG(information.st_mode)) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: is %s, not a file", path,
                           S_ISDIR(information.st_mode) ? "a folder" : "a device or pipe");
        goto done;
    }
    if ((uintmax_t)information.st_size > SIZE_MAX / 2) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: too large to be mapped", path);
        goto done;
    }
    if (information.st_size > 0) {
        void *data = mmap(NULL, (size_t)information.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) {
            status = error_set(error, errno == ENOMEM ? ONESTEP_ERROR_MEMORY : ONESTEP_ERROR_IO,
                               "%s: cannot be mapped: %m", path);
            goto done;
        }
        file->data = data;
        file->size = (size_t)information.st_size;
    }
done:
    close(descriptor);
    return status;
}

void mapped_file_close(mapped_file *file)
{
    if (file->data != NULL) {
        munmap((void *)(uintptr_t)file->data, file->size);
    }
    *file = (mapped_file){0};
}

static void advise(uintptr_t first, uintptr_t last, int advice)
{
    if (first < last) {
        /* Advice may be refused without harm. */
        (void)madvise((void *)first, last - first, advice);
    }
}

void mapped_memory_release(const void *data, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)data;
    advise((first + page - 1) / page * page, (first + size) / page * page, MADV_DONTNEED);
}

void mapped_memory_prefetch(const void *data, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)data;
    if (size > 0) {
        advise(first / page * page, (first + size + page - 1) / page * page, MADV_WILLNEED);
    }
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Reads until the end or until the buffer is full; -1 with errno on failure. */
static ssize_t read_fully(int descriptor, uint8_t *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(descriptor, bytes + done, size_minimum(size - done, TRANSFER_LIMIT));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static onestep_status read_descriptor(int descriptor, const char *path, size_t limit,
                                      uint8_t **bytes, size_t *size, onestep_error *error)
{
    struct stat information;
    if (fstat(descriptor, &information) != 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be examined: %m", path);
    }
    if (S_ISDIR(information.st_mode)) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: is a folder, not a file", path);
    }
    /* The size is a first guess only: pipes and /proc have none, and files grow. */
    size_t capacity = 4096;
    if (S_ISREG(information.st_mode) && information.st_size > 0) {
        if ((uintmax_t)information.st_size > limit) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "%s: %ju bytes, more than the %zu that such a file may have", path,
                             (uintmax_t)information.st_size, limit);
        }
        capacity = (size_t)information.st_size + 1;
    }
    uint8_t *data = NULL;
    size_t used = 0;
    onestep_status status;
    for (;;) {
        uint8_t *grown = memory_resize(data, capacity, 1, error);
        if (grown == NULL) {
            status = ONESTEP_ERROR_MEMORY;
            goto failed;
        }
        data = grown;
        size_t room = capacity - used;
        ssize_t got = read_fully(descriptor, data + used, room);
        if (got < 0) {
            status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be read: %m", path);
            goto failed;
        }
        used += (size_t)got;
        if (used > limit) {
            status =
                error_set(error, ONESTEP_ERROR_FORMAT,
                          "%s: more than the %zu bytes that such a file may have", path, limit);
            goto failed;
        }
        if ((size_t)got < room) {
            break; /* the end; at least one byte is left for the NUL */
        }
        if (capacity > SIZE_MAX / 2) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "%s: too large to be read", path);
            goto failed;
        }
        capacity *= 2;
    }
    data[used] = '\0';
    *bytes = data;
    *size = used;
    return ONESTEP_OK;
failed:
    memory_free(data);
    return status;
}

onestep_status file_read(const char *path, size_t limit, uint8_t **bytes, size_t *size,
                         onestep_error *error)
{
    *bytes = NULL;
    *size = 0;
    int descriptor = open_retrying(path, O_RDONLY, 0);
    if (descriptor < 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened: %m", path);
    }
    onestep_status status = read_descriptor(descriptor, path, limit, bytes, size, error);
    close(descriptor);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------ */

static bool write_fully(int descriptor, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t put = write(descriptor, bytes, size_minimum(size, TRANSFER_LIMIT));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return false;
        }
        bytes += put;
        size -= (size_t)put;
    }
    return true;
}

static bool write_parts(int descriptor, const file_part *parts, size_t count)
{
    for (size_t i = 0; i < count; ++i) {
        if (!write_fully(descriptor, parts[i].bytes, parts[i].size)) {
            return false;
        }
    }
    return true;
}

/* Devices and pipes (/dev/stdout, /dev/null) are written to: they cannot be replaced. */
static onestep_status write_in_place(const char *path, const file_part *parts, size_t count,
                                     onestep_error *error)
{
    int descriptor = open_retrying(path, O_WRONLY | O_NOCTTY, 0);
    if (descriptor < 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened for writing: %m", path);
    }
    bool written = write_parts(descriptor, parts, count);
    int reason = errno;
    written = close(descriptor) == 0 && written;
    errno = reason;
    return written ? ONESTEP_OK
                   : error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", path);
}

/* Makes a new file beside `path`; -1 with errno on failure. The name is the caller's to free. */
static int open_temporary(const char *path, mode_t mode, char **name, onestep_error *error)
{
    *name = NULL;
    for (int attempt = 0; attempt < 100; ++attempt) {
        uint64_t random = 0;
        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
            random = (uint64_t)(monotonic_seconds() * 1e9) ^ (uint64_t)getpid() << 40;
        }
        char *candidate = string_format(error, "%s.%012llx.tmp", path,
                                        (unsigned long long)(random & 0xffffffffffff));
        if (candidate == NULL) {
            errno = ENOMEM;
            return -1;
        }
        int descriptor = open_retrying(candidate, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (descriptor >= 0) {
            *name = candidate;
            return descriptor;
        }
        int reason = errno;
        memory_free(candidate);
        errno = reason;
        if (reason != EEXIST) {
            break;
        }
    }
    return -1;
}

/* Flushes the folder that holds `path`, so that the rename outlives a power cut. File systems that
 * cannot do that are left alone. */
static void flush_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL   ? string_format(NULL, ".")
                   : slash == path ? string_format(NULL, "/")
                                   : string_format(NULL, "%.*s", (int)(slash - path), path);
    if (folder == NULL) {
        return;
    }
    int descriptor = open_retrying(folder, O_RDONLY | O_DIRECTORY, 0);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        close(descriptor);
    }
    memory_free(folder);
}

onestep_status file_write_atomic(const char *path, const void *bytes, size_t size,
                                 onestep_error *error)
{
    return file_write_parts(path, &(file_part){bytes, size}, 1, error);
}

onestep_status file_write_parts(const char *path, const file_part *parts, size_t count,
                                onestep_error *error)
{
    struct stat old;
    bool replaces = stat(path, &old) == 0;
    if (replaces && S_ISDIR(old.st_mode)) {
        return error_set(error, ONESTEP_ERROR_IO,
                         "%s: is a folder, so no file can be written there", path);
    }
    if (replaces && !S_ISREG(old.st_mode)) {
        return write_in_place(path, parts, count, error);
    }
    onestep_status status = ONESTEP_OK;
    char *temporary = NULL;
    /* A link stays a link: its target is replaced. */
    char *target = NULL;
    char resolved[4096];
    ssize_t link_length = readlink(path, resolved, sizeof resolved - 1);
    if (link_length > 0 && replaces && realpath(path, resolved) != NULL) {
        target = string_duplicate(resolved, error);
    } else {
        target = string_duplicate(path, error);
    }
    if (target == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    int descriptor = open_temporary(target, 0666, &temporary, error);
    if (descriptor < 0) {
        status = errno == ENOMEM ? ONESTEP_ERROR_MEMORY
                                 : error_set(error, ONESTEP_ERROR_IO,
                                             "%s: no file can be written in its folder: %m", path);
        if (status == ONESTEP_ERROR_MEMORY) {
            (void)error_set(error, status, "%s: out of memory while writing", path);
        }
        goto done;
    }
    if (replaces) {
        /* The new file is as readable as the old one; a file system without modes may refuse. */
        (void)fchmod(descriptor, old.st_mode & 0777);
    }
    if (!write_parts(descriptor, parts, count)) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", path);
    } else if (fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be flushed: %m", path);
    }
    if (close(descriptor) != 0 && status == ONESTEP_OK) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", path);
    }
    if (status == ONESTEP_OK && rename(temporary, target) != 0) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be put in place: %m", path);
    }
    if (status != ONESTEP_OK) {
        (void)unlink(temporary);
    } else {
        flush_folder(target);
    }
done:
    memory_free(temporary);
    memory_free(target);
    return status;
}

/* ---- folders and names -------------------------------------------------------------------- */

bool path_is_folder(const char *path)
{
    struct stat information;
    return stat(path, &information) == 0 && S_ISDIR(information.st_mode);
}

bool path_exists(const char *path)
{
    struct stat information;
    return stat(path, &information) == 0;
}

onestep_status folder_create(const char *path, onestep_error *error)
{
    char *partial = string_duplicate(path, error);
    if (partial == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    size_t length = strlen(partial);
    for (size_t i = 1; i <= length && status == ONESTEP_OK; ++i) {
        if (i < length && partial[i] != '/') {
            continue;
        }
        char kept = partial[i];
        partial[i] = '\0';
        if (mkdir(partial, 0777) != 0 && !path_is_folder(partial)) {
            status = errno == EEXIST ? error_set(error, ONESTEP_ERROR_IO,
                                                 "%s: exists and is not a folder", partial)
                                     : error_set(error, ONESTEP_ERROR_IO,
                                                 "%s: the folder cannot be made: %m", partial);
        }
        partial[i] = kept;
    }
    if (length == 0) {
        status = error_set(error, ONESTEP_ERROR_IO, "the name of a folder is empty");
    }
    memory_free(partial);
    return status;
}

char *path_join(const char *folder, const char *name, onestep_error *error)
{
    size_t length = strlen(folder);
    bool separated = length == 0 || folder[length - 1] == '/';
    return string_format(error, "%s%s%s", folder, separated ? "" : "/", name);
}
