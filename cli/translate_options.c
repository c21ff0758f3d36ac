/* The option table of `onestep translate`: also the fields of HTTP requests and the parameters
 * that a PNG keeps. */
#include "cli/job.h"

#define TASKS                                                                                      \
    "edge_to_image|sketch_to_image_stochastic|day_to_night|night_to_day|clear_to_rainy|"           \
    "rainy_to_clear"

const option translate_options[] = {
    {.name = "task", .letter = 't', .official = "model_name", .kind = OPTION_CHOICE,
     .flags = OPTION_STORED | OPTION_HTTP, .argument = "NAME", .choices = TASKS,
     .help = "What to do: edge_to_image, sketch_to_image_stochastic, day_to_night,\n"
             "night_to_day, clear_to_rainy or rainy_to_clear."},
    {.name = "checkpoint", .letter = 'c', .official = "model_path", .kind = OPTION_PATH,
     .flags = OPTION_STORED, .argument = "FILE",
     .help = "An own checkpoint (.pkl or .safetensors). With --task it replaces the\n"
             "task's file; alone, its contents tell the family."},
    {.name = "base", .letter = 'b', .kind = OPTION_PATH, .flags = OPTION_STORED,
     .argument = "DIR|NAME",
     .help = "Base model: a diffusers folder, or a name in the model store (sd-turbo)."},
    {.name = "demo", .kind = OPTION_FLAG, .flags = OPTION_STORED,
     .help = "The built-in small base and checkpoints: needs no download."},
    {.name = "input", .letter = 'i', .official = "input_image", .kind = OPTION_PATH,
     .flags = OPTION_REPEATS, .argument = "PATH",
     .help = "Picture (PNG, JPEG, WebP), folder, glob, @list.txt, or - for standard input."},
    {.name = "output", .letter = 'o', .official = "output_dir", .kind = OPTION_PATH,
     .argument = "PATH",
     .help = "A name with an image suffix is a file; else a folder, made when missing\n"
             "(default: output); - is standard output."},
    {.name = "format", .kind = OPTION_CHOICE, .argument = "png|jpg|webp",
     .choices = "png|jpg|webp|jpeg",
     .help = "Output format (default: the output's or the input's suffix, else png)."},
    {.name = "quality", .kind = OPTION_INTEGER, .argument = "N", .least = 1, .most = 100,
     .help = "JPEG and WebP quality, 1 to 100 (95)."},
    {.name = "prompt", .letter = 'p', .kind = OPTION_TEXT, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "TEXT",
     .help = "What the picture shall show; replaces the fixed caption of the unpaired tasks."},
    {.name = "prompts", .kind = OPTION_PATH, .argument = "FILE.json",
     .help = "Captions by file name (a JSON object, the training format)."},
    {.name = "direction", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "a2b|b2a", .choices = "a2b|b2a",
     .help = "For own unpaired checkpoints: which way to translate."},
    {.name = "control", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "image|canny|sketch", .choices = "image|canny|sketch",
     .help = "Preparation for an own paired checkpoint (image; sketch for a stochastic one)."},
    {.name = "image-prep", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "NAME",
     .choices = "resize_512x512|resize_512|resize_256x256|resize_256|resized_crop_512|no_resize|"
                "resize_286_randomcrop_256x256_hflip",
     .help = "Preparation of the unpaired tasks: resize_512x512 (default), resize_256x256,\n"
             "resized_crop_512, no_resize, resize_286_randomcrop_256x256_hflip."},
    {.name = "fit", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "official|exact", .choices = "official|exact",
     .help = "official: the official sizes. exact: no resize, reflection padding to\n"
             "multiples of 8, cropped back."},
    {.name = "max-side", .kind = OPTION_INTEGER, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "N", .least = 8, .most = 65500,
     .help = "Scale larger inputs down to this longer side first."},
    {.name = "low-threshold", .kind = OPTION_NUMBER, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "N", .least = 0, .most = 1e9, .help = "Canny's lower threshold (100)."},
    {.name = "high-threshold", .kind = OPTION_NUMBER, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "N", .least = 0, .most = 1e9, .help = "Canny's upper threshold (200)."},
    {.name = "no-canny", .kind = OPTION_FLAG, .help = "Do not write NAME_canny.png."},
    {.name = "gamma", .kind = OPTION_NUMBER, .flags = OPTION_STORED | OPTION_HTTP, .argument = "G",
     .least = 0, .most = 1,
     .help = "Guidance of the stochastic family, 0 (free) to 1 (as drawn) (0.4)."},
    {.name = "gammas", .kind = OPTION_NUMBERS, .argument = "LIST", .least = 0, .most = 1,
     .help = "Several guidances, 0,0.2,1: one output each."},
    {.name = "seed", .letter = 's', .kind = OPTION_INTEGER, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "N", .help = "Seed of the noise, any 64-bit integer (42)."},
    {.name = "count", .letter = 'n', .kind = OPTION_INTEGER, .argument = "N", .least = 1,
     .most = 100000, .help = "N outputs with the seeds s, s+1, ..."},
    {.name = "rng", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "cuda|cpu", .choices = "cuda|cpu",
     .help = "Which official generator to reproduce (cuda: what official users saw)."},
    {.name = "noise", .kind = OPTION_PATH, .argument = "FILE.npy",
     .help = "A given noise map, float32 [1,4,H/8,W/8] (stochastic family)."},
    {.name = "posterior-noise", .kind = OPTION_PATH, .argument = "FILE.npy",
     .help = "A given draw for the posterior, float32 [1,4,H/8,W/8]."},
    {.name = "posterior", .kind = OPTION_CHOICE, .flags = OPTION_STORED | OPTION_HTTP,
     .argument = "sample|mean", .choices = "sample|mean",
     .help = "Sample the posterior as the official code does, or take its mean."},
    {.name = "lora-alpha-unet", .kind = OPTION_NUMBER, .flags = OPTION_STORED, .argument = "A",
     .least = -1e6, .most = 1e6,
     .help = "LoRA alpha of the UNet, for checkpoints trained otherwise than officially."},
    {.name = "lora-alpha-vae", .kind = OPTION_NUMBER, .flags = OPTION_STORED, .argument = "A",
     .least = -1e6, .most = 1e6, .help = "LoRA alpha of the VAE."},
    {.name = "precision", .kind = OPTION_CHOICE, .argument = "auto|f32|bf16|int16",
     .choices = "auto|f32|bf16|int16",
     .help = "auto: the fastest that keeps its fidelity on this CPU."},
    {.name = "use-fp16", .kind = OPTION_FLAG, .flags = OPTION_OFFICIAL,
     .help = "The official flag: the same as --precision auto."},
    {.name = "backend", .kind = OPTION_CHOICE, .argument = "cpu|reference",
     .choices = "cpu|reference", .help = "reference: plain C, slow, the oracle."},
    {.name = "threads", .kind = OPTION_INTEGER, .argument = "N", .least = 1, .most = 1024,
     .help = "Default: the CPUs allowed by affinity and cgroup quota."},
    {.name = "isa", .kind = OPTION_CHOICE,
     .argument = "NAME", .choices = "plain|neon|avx2|avx512|avx512_vnni|avx512_bf16",
     .help = "A lower instruction set than the CPU has: plain, avx2, avx512, ..."},
    {.name = "memory-limit", .kind = OPTION_BYTES, .argument = "SIZE",
     .help = "Stay under this resident memory (plus 100 MB): 1G, 1500M."},
    {.name = "grid", .kind = OPTION_FLAG,
     .help = "Also write NAME_grid.png: input, control, outputs."},
    {.name = "dump", .kind = OPTION_PATH, .argument = "DIR",
     .help = "Write every stage's tensor as .npy, for comparison with other implementations."},
    {.name = "plan", .kind = OPTION_FLAG,
     .help = "Print each layer's algorithm, predicted and measured time."},
    {.name = "dump-graph", .kind = OPTION_PATH, .argument = "FILE.dot",
     .help = "Write the network's graph in Graphviz's language."},
    {.name = "resume", .kind = OPTION_FLAG, .help = "Skip inputs whose outputs exist."},
    {.name = "on-error", .kind = OPTION_CHOICE, .argument = "stop|skip", .choices = "stop|skip",
     .help = "skip: go on after a bad file and report it at the end (exit 1)."},
    {.name = "like", .kind = OPTION_PATH, .argument = "FILE.png",
     .help = "Take the parameters stored in an earlier output; options given win."},
    {0}};

const command translate_command = {
    .name = "translate",
    .summary = "translate pictures with pix2pix-turbo or CycleGAN-turbo",
    .operands = "",
    .examples =
        "  onestep translate --demo -t day_to_night -i street.png -o night.png\n"
        "  onestep translate -t edge_to_image -i bird.png -p \"a blue bird\" -o bird_blue.png\n"
        "  onestep translate -t sketch_to_image_stochastic -i cat.png -p \"a cat\" --gammas 0,0.4,1\n"
        "  onestep translate -c mine.pkl -b sd-turbo -i photos/ -o out/ -p \"a castle\" --resume\n"
        "  onestep translate --model_name edge_to_image --input_image bird.png \\\n"
        "      --prompt \"a blue bird\" --output_dir outputs\n",
    .options = translate_options,
    .run = translate_run};
