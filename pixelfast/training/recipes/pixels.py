"""Recipes of models that draw pixels: PixelCNN, Gated PixelCNN, PixelCNN++, PixelRNN."""

from __future__ import annotations

from pixelfast.training.recipe import Recipe

PIXELS = (
    Recipe(
        name="gated-pixelcnn-mnist",
        model="gated_pixelcnn",
        config={"shape": [1, 28, 28], "levels": 256, "hidden": 32, "dilations": [1, 2, 1, 4, 1, 2, 1]},
        steps=22_500,  # three epochs
        batch_size=8,
        learning_rate=4e-3,
        validate_every=2500,
    ),
    # From the weights of the one above: --start gated-pixelcnn-mnist.
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
        steps=9000,  # 2.4 epochs
        batch_size=16,
        learning_rate=3e-3,
        validate_every=2000,
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
    # Section 5.4 of "Pixel Recurrent Neural Networks", binary MNIST: fewer layers, for minutes of a few cores.
    Recipe(
        name="pixelrnn-row-mnist",
        model="pixel_rnn",
        config={"shape": [1, 28, 28], "kind": "row_lstm", "levels": 2, "layers": 3, "hidden": 32},
        binarise="threshold",
        steps=4000,
        batch_size=16,
        learning_rate=2e-3,
        validate_every=1000,
    ),
    Recipe(
        name="pixelrnn-diagonal-mnist",
        model="pixel_rnn",
        config={"shape": [1, 28, 28], "kind": "diagonal_bilstm", "levels": 2, "layers": 2, "hidden": 32},
        binarise="threshold",
        steps=2000,
        batch_size=16,
        learning_rate=2e-3,
        validate_every=500,
    ),
    # A small relative of the published network, for minutes of a few cores.
    Recipe(
        name="pixelsnail-cifar10",
        model="pixel_snail",
        config={"shape": [3, 32, 32], "attentions": 2, "blocks": 2, "filters": 32, "mixtures": 5, "dropout": 0.0},
        steps=2000,
        batch_size=8,
        flip=True,
        learning_rate=1e-3,
        data_init=True,
        validate_every=500,
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
