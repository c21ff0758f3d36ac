/* The model store as the program's commands see it. */
#ifndef ONESTEP_CLI_MODELS_H
#define ONESTEP_CLI_MODELS_H

#include "store/store.h"

/* The catalogue with the user's own entries ($XDG_CONFIG_HOME/onestep/catalogue.json, else
 * ~/.config/onestep/catalogue.json). */
onestep_status models_catalogue(catalogue **c, onestep_error *error) MUST_USE;

/* Sets the error for a model that is wanted (`what` names it, "the checkpoint of day_to_night") and
 * not in the store: its size and licence, the command that fetches it and its base (unless the user
 * has named another, `own_base`), and what works without. */
onestep_status models_missing(const char *folder, const char *name, const char *what, bool own_base,
                              onestep_error *error);

#endif
