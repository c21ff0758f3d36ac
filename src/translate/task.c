#include "translate/translate.h"

#include <string.h>

static const task tasks[TASK_COUNT] = {
    {"edge_to_image", ONESTEP_FAMILY_PAIRED, false, ONESTEP_CONTROL_CANNY,
     ONESTEP_DIRECTION_DEFAULT, NULL, "edge_to_image_loras.pkl"},
    {"sketch_to_image_stochastic", ONESTEP_FAMILY_PAIRED, true, ONESTEP_CONTROL_SKETCH,
     ONESTEP_DIRECTION_DEFAULT, NULL, "sketch_to_image_stochastic_lora.pkl"},
    {"day_to_night", ONESTEP_FAMILY_UNPAIRED, false, ONESTEP_CONTROL_IMAGE, ONESTEP_DIRECTION_A2B,
     "driving in the night", "day2night.pkl"},
    {"night_to_day", ONESTEP_FAMILY_UNPAIRED, false, ONESTEP_CONTROL_IMAGE, ONESTEP_DIRECTION_B2A,
     "driving in the day", "night2day.pkl"},
    {"clear_to_rainy", ONESTEP_FAMILY_UNPAIRED, false, ONESTEP_CONTROL_IMAGE, ONESTEP_DIRECTION_A2B,
     "driving in heavy rain", "clear2rainy.pkl"},
    {"rainy_to_clear", ONESTEP_FAMILY_UNPAIRED, false, ONESTEP_CONTROL_IMAGE, ONESTEP_DIRECTION_B2A,
     "driving in the day", "rainy2clear.pkl"},
};

const task *task_at(size_t index)
{
    return index < TASK_COUNT ? &tasks[index] : NULL;
}

const task *task_find(const char *name)
{
    for (size_t i = 0; i < TASK_COUNT; i++) {
        if (strcmp(tasks[i].name, name) == 0) {
            return &tasks[i];
        }
    }
    return NULL;
}
