"""Recipes of VQ-VAEs and of the priors over their codes."""

from __future__ import annotations

from pixelfast.training.recipe import Recipe

VQ_VAE_2_TOP = {"features": 64, "hidden": 32, "parts": 1, "blocks": 2, "kernel_size": 3, "heads": 4}
VQ_VAE_2_BOTTOM = {
    "features": 48,
    "hidden": 32,
    "parts": 1,
    "blocks": 3,
    "kernel_size": 3,
    "condition_hidden": 32,
    "condition_blocks": 1,
}

CODES = (
    # Section 4.1 of the paper, narrower, for 28x28: 7x7 codes of 7 bits.
    Recipe(
        name="vqvae-mnist",
        model="vq_vae",
        config={"shape": [1, 28, 28], "levels": 256, "hidden": 64, "codes": 128, "code_width": 32},
        steps=6000,
        batch_size=32,
        learning_rate=2e-3,
        ema_decay=0.99,  # as slow as the codebook's own: encoder and codebook have to fit each other
        validate_every=1000,
    ),
    Recipe(
        name="vqvae-mnist-prior",
        model="vq_vae_with_prior",
        config={"prior_hidden": 64, "prior_dilations": [1, 1, 1, 1], "classes": 10},
        steps=10_000,
        batch_size=32,
        learning_rate=2e-3,
        validate_every=1000,
    ),
    # Two levels, small: a 7x7 map of codes, and a 14x14 one given it. The narrow priors are PixelSNAILs.
    Recipe(
        name="vqvae2-mnist",
        model="vq_vae_2",
        config={
            "shape": [1, 28, 28],
            "hidden": 32,
            "halvings": 1,
            "codes": 32,
            "code_width": 16,
            "bottom_dropout": 0.15,
        },
        steps=1500,
        batch_size=32,
        learning_rate=2e-3,
        ema_decay=0.99,  # as slow as the codebooks' own
        validate_every=500,
    ),
    Recipe(
        name="vqvae2-mnist-priors",
        model="vq_vae_2_with_priors",
        config={"top": VQ_VAE_2_TOP, "bottom": VQ_VAE_2_BOTTOM},
        steps=3000,
        batch_size=16,
        learning_rate=2e-3,
        validate_every=1000,
    ),
    # The same for 32x32 in colour: 8x8 and 16x16 codes.
    Recipe(
        name="vqvae2-cifar10",
        model="vq_vae_2",
        config={
            "shape": [3, 32, 32],
            "hidden": 48,
            "halvings": 1,
            "codes": 128,
            "code_width": 24,
            "bottom_dropout": 0.15,
        },
        steps=2000,
        batch_size=16,
        flip=True,
        learning_rate=2e-3,
        ema_decay=0.99,
        validate_every=500,
    ),
    Recipe(
        name="vqvae2-cifar10-priors",
        model="vq_vae_2_with_priors",
        config={"top": VQ_VAE_2_TOP, "bottom": VQ_VAE_2_BOTTOM},
        steps=3000,
        batch_size=8,
        flip=True,
        learning_rate=2e-3,
        validate_every=1000,
    ),
)
