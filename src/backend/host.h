/* Buffers in the computer's own memory, for the backends that run on its CPU. */
#ifndef ONESTEP_BACKEND_HOST_H
#define ONESTEP_BACKEND_HOST_H

#include "backend/backend.h"

struct device_buffer {
    uint8_t *data; /* aligned to 64 bytes */
    size_t bytes;
};

/* What backend_functions asks for; `self` is not used. */
onestep_status host_allocate(backend *self, size_t bytes, device_buffer **buffer,
                             onestep_error *error);
void host_release(backend *self, device_buffer *buffer);
void host_upload(backend *self, device_buffer *buffer, size_t offset, const void *host,
                 size_t bytes);
void host_download(backend *self, const device_buffer *buffer, size_t offset, void *host,
                   size_t bytes);
/* Nothing to wait for: every step has finished when `run` returns. */
void host_sync(backend *self);

#endif
