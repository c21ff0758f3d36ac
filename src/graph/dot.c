/* A graph's picture in Graphviz's language. */
#include "graph/graph.h"

/* Weight names come from files: keep the quotes of the language intact. */
static void print_escaped(text_buffer *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') {
            text_buffer_append(out, "\\", 1);
        }
        text_buffer_append(out, (unsigned char)*text < 0x20 ? "?" : text, 1);
    }
}

void graph_print_dot(const graph *g, text_buffer *out)
{
    text_buffer_print(out, "digraph onestep {\n  node [shape=box fontname=\"sans-serif\"];\n");
    for (int t = 0; t < g->tensor_count; t++) {
        const tensor *x = &g->tensors[t];
        if (x->kind == TENSOR_INPUT) {
            text_buffer_print(out, "  t%d [shape=ellipse label=\"", t);
            print_escaped(out, x->name);
            text_buffer_print(out, "\\n%zux%zux%zux%zu\"];\n", x->dims[0], x->dims[1], x->dims[2],
                              x->dims[3]);
        }
    }
    for (int i = 0; i < g->node_count; i++) {
        const node *n = &g->nodes[i];
        const size_t *dims = graph_dims(g, n->output);
        text_buffer_print(out, "  n%d [label=\"%s", i, operation_name(n->operation));
        for (unsigned k = 0; k < n->input_count; k++) {
            const tensor *x = &g->tensors[n->inputs[k]];
            if (x->kind == TENSOR_WEIGHT && k == 1) {
                text_buffer_print(out, "\\n");
                print_escaped(out, x->name);
            }
        }
        text_buffer_print(out, "\\n%zux%zux%zux%zu\\n%s %.3g MFLOP\"];\n", dims[0], dims[1],
                          dims[2], dims[3], n->stage, operation_cost(g, n) / 1e6);
        for (unsigned k = 0; k < n->input_count; k++) {
            const tensor *x = &g->tensors[n->inputs[k]];
            if (x->producer >= 0) {
                text_buffer_print(out, "  n%d -> n%d;\n", x->producer, i);
            } else if (x->kind == TENSOR_INPUT) {
                text_buffer_print(out, "  t%d -> n%d;\n", n->inputs[k], i);
            }
        }
    }
    for (int o = 0; o < g->output_count; o++) {
        text_buffer_print(out, "  o%d [shape=ellipse label=\"", o);
        print_escaped(out, g->outputs[o].name);
        text_buffer_print(out, "\"];\n");
        int producer = g->tensors[g->outputs[o].tensor].producer;
        if (producer >= 0) {
            text_buffer_print(out, "  n%d -> o%d;\n", producer, o);
        }
    }
    text_buffer_print(out, "}\n");
}
