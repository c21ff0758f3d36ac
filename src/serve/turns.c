/* Who translates now. A large picture has the engine alone, with all its threads. Small ones gain
 * little from many threads, so two of them are translated side by side; that makes more pictures a
 * second than one after the other. Everybody has their turn in the order of asking. */
#include "serve/server.h"

void turns_create(turns *t, size_t small_most, size_t sessions_most)
{
    t->small_most = small_most;
    t->sessions_most = sessions_most;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->moved, NULL);
}

void turns_destroy(turns *t)
{
    for (size_t i = 0; i < SERVE_SESSIONS_MOST; i++) {
        onestep_session_destroy(&t->sessions[i].session);
    }
    pthread_cond_destroy(&t->moved);
    pthread_mutex_destroy(&t->lock);
}

/* A free session of this model; else one is made in the place of that whose last use is longest
 * ago. The first that fits, so that large pictures, which never meet, share one. */
static onestep_status take_session(turns *t, onestep_model *model, held_session **held,
                                   onestep_error *error)
{
    held_session *oldest = NULL;
    for (size_t i = 0; i < t->sessions_most; i++) {
        held_session *h = &t->sessions[i];
        if (h->busy) {
            continue;
        }
        if (h->session && h->model == model) {
            oldest = h;
            break;
        }
        oldest = !oldest || h->used < oldest->used ? h : oldest;
    }
    if (!oldest->session || oldest->model != model) {
        onestep_session_destroy(&oldest->session);
        onestep_status status = onestep_session_create(&oldest->session, model, error);
        if (status != ONESTEP_OK) {
            oldest->used = 0;
            return status;
        }
        oldest->model = model;
    }
    oldest->used = ++t->uses;
    oldest->busy = true;
    *held = oldest;
    return ONESTEP_OK;
}

static bool may_begin(const turns *t, uint64_t ticket, bool small)
{
    bool room = t->users == 0 || (small && !t->alone && t->users < t->small_most);
    return ticket == t->now && room;
}

/* The caller has the lock. */
static double leave(turns *t)
{
    double now = monotonic_seconds(), worked = now - t->since;
    t->since = now;
    t->users--;
    t->alone = false; /* one who is alone leaves nobody behind */
    pthread_cond_broadcast(&t->moved);
    return worked;
}

onestep_status turn_begin(turns *t, onestep_model *model, bool small, held_session **held,
                          onestep_error *error)
{
    pthread_mutex_lock(&t->lock);
    uint64_t ticket = t->next++;
    while (!may_begin(t, ticket, small)) {
        pthread_cond_wait(&t->moved, &t->lock);
    }
    t->now++;
    if (t->users++ == 0) {
        t->since = monotonic_seconds();
    }
    t->alone = !small;
    onestep_status status = take_session(t, model, held, error);
    if (status != ONESTEP_OK) {
        (void)leave(t);
    } else {
        pthread_cond_broadcast(&t->moved);
    }
    pthread_mutex_unlock(&t->lock);
    return status;
}

double turn_end(turns *t, held_session *held)
{
    pthread_mutex_lock(&t->lock);
    held->busy = false;
    double worked = leave(t);
    pthread_mutex_unlock(&t->lock);
    return worked;
}
