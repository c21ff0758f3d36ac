"""The configurations of the two small base models. Nothing in them equals SD-Turbo's, nor each other's."""

SMALL_MERGES = 1000

BASES = {
    # Small, single precision, as SD-Turbo in kind: epsilon, erf GELU, pad token `!`, linear projections, four levels.
    # Keys that equal diffusers' defaults are left out on purpose.
    "base_a": {
        "seed": 11, "pad": "exclamation", "half": False, "old_attention_names": False, "text_shards": 1,
        "text": {
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "gelu", "hidden_size": 40,
            "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 5, "max_position_embeddings": 77,
            "layer_norm_eps": 1e-05, "projection_dim": 40,
        },
        "vae": {
            "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
            "block_out_channels": [8, 12, 20, 24], "layers_per_block": 1, "norm_num_groups": 4, "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "sample_size": 64,
            "block_out_channels": [8, 16, 24, 32], "layers_per_block": 1, "norm_num_groups": 4,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "attention_head_dim": [2, 1, 3, 4], "cross_attention_dim": 40, "use_linear_projection": True,
        },
        "scheduler": {
            "_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000, "clip_sample": False, "prediction_type": "epsilon",
            "timestep_spacing": "trailing",
        },
    },
    # Half precision in the file, as SD 1.x and 2.x with v prediction: quick GELU, pad token EOS, convolutional
    # projections, one head count for all levels, three levels of which the first has no transformer, two transformer
    # layers a block, other epsilons and betas, a sharded text encoder, and the VAE's attention under its old names.
    "base_b": {
        "seed": 12, "pad": "eos", "half": True, "old_attention_names": True, "text_shards": 2,
        "text": {
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu",
            "hidden_size": 56, "intermediate_size": 112, "num_hidden_layers": 4, "num_attention_heads": 7,
            "max_position_embeddings": 77, "layer_norm_eps": 4e-05, "projection_dim": 56, "dropout": 0.0,
            "attention_dropout": 0.0, "initializer_factor": 1.0, "initializer_range": 0.02, "torch_dtype": "float16",
        },
        "vae": {
            "_class_name": "AutoencoderKL", "_diffusers_version": "0.25.1", "in_channels": 3, "out_channels": 3,
            "latent_channels": 4, "block_out_channels": [6, 12, 9, 18], "layers_per_block": 2, "norm_num_groups": 3,
            "act_fn": "silu", "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
            "sample_size": 256, "scaling_factor": 0.21, "force_upcast": True,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.25.1", "in_channels": 4, "out_channels": 4,
            "sample_size": 32, "block_out_channels": [16, 32, 24], "layers_per_block": 2, "norm_num_groups": 8,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "mid_block_type": "UNetMidBlock2DCrossAttn", "attention_head_dim": 4, "cross_attention_dim": 56,
            "use_linear_projection": False, "transformer_layers_per_block": 2, "norm_eps": 3e-05, "act_fn": "silu",
            "flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": False, "downsample_padding": 1,
            "mid_block_scale_factor": 1, "only_cross_attention": False, "dual_cross_attention": False,
            "resnet_time_scale_shift": "default", "upcast_attention": False, "class_embed_type": None,
        },
        "scheduler": {
            "_class_name": "DDPMScheduler", "_diffusers_version": "0.25.1", "beta_start": 0.0009, "beta_end": 0.0115,
            "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "clip_sample": False,
            "prediction_type": "v_prediction", "variance_type": "fixed_small", "thresholding": False,
            "timestep_spacing": "trailing", "steps_offset": 1, "trained_betas": None,
        },
    },
}
