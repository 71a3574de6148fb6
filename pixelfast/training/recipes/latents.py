"""Recipes of models with continuous latents: autoencoders, VAE and PixelVAE."""

from __future__ import annotations

from pixelfast.training.recipe import Recipe

LATENTS = (
    # Latents of 28x28 digits whose pixels are drawn black or white anew at every step.
    Recipe(
        name="vae-mnist",
        model="vae",
        config={"shape": [1, 28, 28], "latents": 32, "hidden": 32},
        steps=6000,
        batch_size=64,
        binarise="stochastic",
        learning_rate=2e-3,
        clip_norm=None,  # the loss is in nats of an image
        ema_decay=0.995,
        validate_every=1000,
    ),
    Recipe(
        name="autoencoder-mnist",
        model="vae",
        config={"shape": [1, 28, 28], "latents": 32, "hidden": 32, "kl_weight": 0.0},
        steps=6000,
        batch_size=64,
        binarise="stochastic",
        learning_rate=2e-3,
        clip_norm=None,
        ema_decay=0.995,
        validate_every=1000,
    ),
    Recipe(
        name="pixelvae-mnist",
        model="pixel_vae",
        config={
            "shape": [1, 28, 28],
            "latents": 32,
            "hidden": 32,
            "layers": 2,
            "features": 16,
            "pixel_hidden": 16,
        },
        steps=6000,
        batch_size=32,
        binarise="stochastic",
        learning_rate=2e-3,
        clip_norm=None,
        ema_decay=0.995,
        validate_every=1000,
    ),
    Recipe(
        name="hierarchical-pixelvae-mnist",
        model="hierarchical_pixel_vae",
        config={
            "shape": [1, 28, 28],
            "latents": [4, 32],
            "halvings": [2],
            "hidden": 32,
            "layers": 1,
            "latent_layers": 2,
            "features": 16,
            "pixel_hidden": 16,
        },
        steps=6000,
        batch_size=32,
        binarise="stochastic",
        learning_rate=2e-3,
        clip_norm=None,
        ema_decay=0.995,
        validate_every=1000,
    ),
    # Three levels: 16x16, 8x8, and a vector. A start for runs on a GPU, where everything may be wider.
    Recipe(
        name="hierarchical-pixelvae-64",
        model="hierarchical_pixel_vae",
        config={
            "shape": [3, 64, 64],
            "likelihood": "mixture",
            "levels": 256,
            "mixtures": 5,
            "latents": [8, 16, 64],
            "halvings": [2, 1],
            "hidden": 32,
            "layers": 2,
            "latent_layers": 2,
            "features": 32,
            "pixel_hidden": 32,
        },
        steps=2000,
        batch_size=8,
        learning_rate=1e-3,
        clip_norm=None,
        ema_decay=0.995,
        validate_every=1000,
        validation_images=200,
    ),
)
