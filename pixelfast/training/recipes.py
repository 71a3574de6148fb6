"""The recipes that `pixelfast train` knows by name."""

from __future__ import annotations

from pixelfast.errors import PixelfastError
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

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="gated-pixelcnn-mnist",
            model="gated_pixelcnn",
            config={"shape": [1, 28, 28], "levels": 256, "hidden": 32, "dilations": [1, 2, 1, 4, 1, 2, 1]},
            steps=22_500,  # three epochs
            batch_size=8,
            learning_rate=4e-3,
            validate_every=2500,
        ),
        Recipe(
            name="gated-pixelcnn-mnist-classes",
            model="gated_pixelcnn",
            config={
                "shape": [1, 28, 28],
                "levels": 256,
                "hidden": 32,
                "dilations": [1, 2, 1, 4, 1, 2, 1],
                "classes": 10,
            },
            steps=30_000,  # four epochs
            batch_size=8,
            learning_rate=4e-3,
            validate_every=2500,
        ),
        # Section 5.5 of "Pixel Recurrent Neural Networks", whose binary MNIST this is: half the blocks, narrower.
        Recipe(
            name="pixelcnn-mnist-binary",
            model="pixel_cnn",
            config={"shape": [1, 28, 28], "levels": 2, "hidden": 16, "blocks": 7, "head_hidden": 32},
            binarise="stochastic",
            steps=4000,
            batch_size=16,
            learning_rate=2e-3,
            validate_every=1000,
        ),
        # A small relative of section 5.6's network, for minutes of a few cores.
        Recipe(
            name="pixelcnn-cifar10",
            model="pixel_cnn",
            config={"shape": [3, 32, 32], "levels": 256, "hidden": 24, "blocks": 5, "head_hidden": 48},
            steps=3000,
            batch_size=8,
            flip=True,
            learning_rate=2e-3,
            validate_every=1000,
        ),
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
            config={"shape": [1, 28, 28], "hidden": 32, "halvings": 1, "codes": 32, "code_width": 16},
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
            config={"shape": [3, 32, 32], "hidden": 48, "halvings": 1, "codes": 128, "code_width": 24},
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
        # Section 3 of the paper and its published code: the published network, learning rate and its decay,
        # Adam's betas, the average's decay, flips and data-dependent start, at one process's batch size.
        Recipe(
            name="pixelcnnpp-cifar10",
            model="pixelcnn_plus_plus",
            config={"shape": [3, 32, 32], "blocks": 5, "filters": 160, "mixtures": 10, "dropout": 0.5},
            steps=1_000_000,
            batch_size=16,
            flip=True,
            learning_rate=1e-3,
            schedule="constant",
            learning_rate_decay=0.999995,
            betas=(0.95, 0.9995),
            ema_decay=0.9995,
            data_init=True,
            validate_every=5000,
            sample_every=5000,
            snapshot_every=2500,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """A recipe by name. Raises PixelfastError, naming those that exist."""
    if name not in RECIPES:
        raise PixelfastError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]
