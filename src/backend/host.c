#include "backend/host.h"

#include <string.h>

onestep_status host_allocate(backend *self, size_t bytes, device_buffer **result,
                             onestep_error *error)
{
    (void)self;
    *result = NULL;
    device_buffer *buffer = memory_allocate(1, sizeof *buffer, error);
    if (!buffer) {
        return ONESTEP_ERROR_MEMORY;
    }
    buffer->data = memory_allocate_aligned(bytes, error);
    if (!buffer->data) {
        memory_free(buffer);
        return ONESTEP_ERROR_MEMORY;
    }
    buffer->bytes = bytes;
    *result = buffer;
    return ONESTEP_OK;
}

void host_release(backend *self, device_buffer *buffer)
{
    (void)self;
    if (buffer) {
        memory_free_aligned(buffer->data, buffer->bytes);
        memory_free(buffer);
    }
}

void host_upload(backend *self, device_buffer *buffer, size_t offset, const void *host,
                 size_t bytes)
{
    (void)self;
    memcpy(buffer->data + offset, host, bytes);
}

void host_download(backend *self, const device_buffer *buffer, size_t offset, void *host,
                   size_t bytes)
{
    (void)self;
    memcpy(host, buffer->data + offset, bytes);
}

void host_sync(backend *self)
{
    (void)self;
}
