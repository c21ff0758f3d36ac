/* translate BASE CHECKPOINT INPUT OUTPUT PROMPT; cc translate.c `pkg-config --cflags --libs onestep` */
#include <onestep.h>
#include <stdio.h>

static int show(void *user_data, double fraction, const char *stage)
{
    (void)user_data;
    fprintf(stderr, "\r%-6s %3.0f %%", stage, fraction * 100);
    return 0; /* anything else cancels */
}

int main(int argc, char **argv)
{
    onestep_engine *engine = NULL;
    onestep_base *base = NULL;
    onestep_model *model = NULL;
    onestep_session *session = NULL;
    onestep_error error = {0};
    onestep_request request;
    onestep_result result;
    onestep_request_init(&request);
    onestep_result_init(&result);
    request.progress = show;
    request.prompt = argc > 5 ? argv[5] : NULL;
    int good = argc > 4 && onestep_engine_create(&engine, NULL, &error) == ONESTEP_OK &&
               onestep_base_open(&base, engine, argv[1], &error) == ONESTEP_OK &&
               onestep_model_open(&model, base, argv[2], NULL, &error) == ONESTEP_OK &&
               onestep_session_create(&session, model, &error) == ONESTEP_OK &&
               onestep_image_load(&request.image, argv[3], &error) == ONESTEP_OK &&
               onestep_translate(session, &request, &result, &error) == ONESTEP_OK &&
               onestep_image_save(&result.image, argv[4], 0, &error) == ONESTEP_OK;
    fprintf(stderr, "\n%s\n", good ? "done" : error.message);
    onestep_image_free(&request.image);
    onestep_result_free(&result);
    onestep_session_destroy(&session);
    onestep_model_destroy(&model);
    onestep_base_destroy(&base);
    onestep_engine_destroy(&engine);
    return !good;
}
