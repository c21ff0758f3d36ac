/* A bounded queue between one thread that puts and one that takes. */
#ifndef ONESTEP_CLI_QUEUE_H
#define ONESTEP_CLI_QUEUE_H

#include "base/base.h"

typedef struct queue queue;

/* Holds at most `capacity` items of `item_size` bytes, and while it is not empty no more than about
 * `weight_most` of what their weights add up to. With capacity 0 the two threads take turns: there
 * is room only while the other one waits. */
onestep_status queue_create(queue **q, size_t capacity, size_t item_size, uint64_t weight_most,
                            onestep_error *error) MUST_USE;
void queue_destroy(queue **q);

/* Waits until there is room for an item, made after that; false when the queue was closed. */
bool queue_wait(queue *q);
/* Copies the item in; call queue_wait before. False when the queue was closed: the item stays the
 * caller's. */
bool queue_put(queue *q, const void *item, uint64_t weight);
/* Waits for an item; false when the queue is closed and empty. */
bool queue_take(queue *q, void *item);
/* No more items: those that are there can still be taken. */
void queue_close(queue *q);
/* Waits until everything was taken and the taker waits for more (or has gone). */
void queue_drain(queue *q);

#endif
