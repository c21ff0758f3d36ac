#include "store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCK_BYTES ((size_t)1 << 20)

/* ---- hashing ------------------------------------------------------------------------------ */

bool sha256_valid(const char *text)
{
    return text && strlen(text) == SHA256_TEXT - 1 &&
           strspn(text, "0123456789abcdef") == SHA256_TEXT - 1;
}

onestep_status sha256_file(const char *path, char text[SHA256_TEXT], int (*stop)(void *),
                           void *user_data, onestep_error *error)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    onestep_status status = ONESTEP_OK;
    uint8_t *block = memory_allocate(BLOCK_BYTES, 1, error);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (!block || !context || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory for its hash", path);
        goto done;
    }
    if (file < 0) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened: %m", path);
        goto done;
    }
    for (;;) {
        ssize_t got = read(file, block, BLOCK_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be read: %m", path);
            goto done;
        }
        if (got == 0) {
            break;
        }
        if (stop && stop(user_data)) {
            status = error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled");
            goto done;
        }
        EVP_DigestUpdate(context, block, (size_t)got);
    }
    EVP_DigestFinal_ex(context, digest, &length);
    for (unsigned i = 0; i < length && 2 * i + 2 < SHA256_TEXT; i++) {
        snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
    }
done:
    if (file >= 0) {
        close(file);
    }
    EVP_MD_CTX_free(context);
    memory_free(block);
    return status;
}

/* ---- copying, renaming, removing ---------------------------------------------------------- */

static onestep_status copy_blocks(int from, int to, const char *source, const char *target,
                                  onestep_error *error)
{
    if (ioctl(to, FICLONE, from) == 0) {
        return ONESTEP_OK;
    }
    uint8_t *block = memory_allocate(BLOCK_BYTES, 1, error);
    if (!block) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    ssize_t got;
    while (status == ONESTEP_OK && (got = read(from, block, BLOCK_BYTES)) != 0) {
        if (got < 0 && errno != EINTR) {
            status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be read: %m", source);
        }
        for (ssize_t put = 0; put < got && status == ONESTEP_OK;) {
            ssize_t written = write(to, block + put, (size_t)(got - put));
            if (written < 0 && errno != EINTR) {
                status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", target);
            }
            put += written > 0 ? written : 0;
        }
    }
    memory_free(block);
    return status;
}

onestep_status file_copy(const char *from, const char *to, onestep_error *error)
{
    int source = open(from, O_RDONLY | O_CLOEXEC);
    if (source < 0) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened: %m", from);
    }
    int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (target < 0) {
        close(source);
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", to);
    }
    onestep_status status = copy_blocks(source, target, from, to, error);
    if (status == ONESTEP_OK && fsync(target) != 0) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be flushed: %m", to);
    }
    close(source);
    if (close(target) != 0 && status == ONESTEP_OK) {
        status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be written: %m", to);
    }
    return status;
}

onestep_status file_flush(const char *path, onestep_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool good = file >= 0 && fsync(file) == 0;
    onestep_status status =
        good ? ONESTEP_OK : error_set(error, ONESTEP_ERROR_IO, "%s: cannot be flushed: %m", path);
    if (file >= 0) {
        close(file);
    }
    return status;
}

uint64_t file_bytes(const char *path)
{
    struct stat information;
    return stat(path, &information) == 0 && S_ISREG(information.st_mode)
               ? (uint64_t)information.st_size
               : 0;
}

uint64_t disk_free(const char *folder)
{
    struct statvfs information;
    return statvfs(folder, &information) == 0
               ? (uint64_t)information.f_bavail * information.f_frsize
               : UINT64_MAX;
}

onestep_status parent_create(const char *path, onestep_error *error)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) {
        return ONESTEP_OK;
    }
    char *folder = string_format(error, "%.*s", (int)(slash - path), path);
    onestep_status status = folder ? folder_create(folder, error) : ONESTEP_ERROR_MEMORY;
    memory_free(folder);
    return status;
}

/* nftw has no user data. */
static _Thread_local uint64_t removed_bytes;

static int remove_entry(const char *path, const struct stat *information, int type,
                        struct FTW *walk)
{
    (void)walk;
    if (type == FTW_F) {
        removed_bytes += (uint64_t)information->st_size;
    }
    return remove(path);
}

onestep_status tree_remove(const char *path, uint64_t *bytes, onestep_error *error)
{
    removed_bytes = 0;
    int result = nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS);
    if (bytes) {
        *bytes += removed_bytes;
    }
    if (result != 0 && errno != ENOENT) {
        return error_set(error, ONESTEP_ERROR_IO, "%s: cannot be removed: %m", path);
    }
    return ONESTEP_OK;
}

onestep_status path_rename(const char *from, const char *to, onestep_error *error)
{
    return rename(from, to) == 0 ? ONESTEP_OK
                                 : error_set(error, ONESTEP_ERROR_IO,
                                             "%s: cannot be put in place as %s: %m", from, to);
}

/* ---- JSON --------------------------------------------------------------------------------- */

json_t *json_read(const char *path, onestep_error *error)
{
    enum { BYTES_MOST = 4 << 20 };
    uint8_t *bytes;
    size_t size;
    if (file_read(path, BYTES_MOST, &bytes, &size, error) != ONESTEP_OK) {
        return NULL;
    }
    json_error_t reason;
    json_t *object = json_loadb((const char *)bytes, size, JSON_REJECT_DUPLICATES, &reason);
    memory_free(bytes);
    if (!object) {
        error_set(error, ONESTEP_ERROR_FORMAT, "%s: line %d: %s", path, reason.line, reason.text);
    } else if (!json_is_object(object)) {
        error_set(error, ONESTEP_ERROR_FORMAT, "%s: expected a JSON object", path);
        json_decref(object);
        object = NULL;
    }
    return object;
}

onestep_status json_write(const char *path, const json_t *object, onestep_error *error)
{
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    if (!text) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory to write it", path);
    }
    onestep_status status = parent_create(path, error);
    if (status == ONESTEP_OK) {
        status = file_write_atomic(path, text, strlen(text), error);
    }
    free(text);
    return status;
}

const char *json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- locks -------------------------------------------------------------------------------- */

onestep_status store_lock(int *lock, const char *folder, const char *name,
                          void (*waiting)(void *user_data, const char *message), void *user_data,
                          onestep_error *error)
{
    *lock = -1;
    char *path = string_format(error, "%s/locks/%s.lock", folder, name);
    onestep_status status = path ? parent_create(path, error) : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK) {
        *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*lock < 0) {
            status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be opened: %m", path);
        }
    }
    if (status == ONESTEP_OK && flock(*lock, LOCK_EX | LOCK_NB) != 0) {
        if (waiting) {
            waiting(user_data, "another process is busy with this model: waiting for it");
        }
        int result;
        while ((result = flock(*lock, LOCK_EX)) != 0 && errno == EINTR) {
        }
        if (result != 0) {
            status = error_set(error, ONESTEP_ERROR_IO, "%s: cannot be locked: %m", path);
            store_unlock(*lock);
            *lock = -1;
        }
    }
    memory_free(path);
    return status;
}

void store_unlock(int lock)
{
    if (lock >= 0) {
        close(lock);
    }
}
