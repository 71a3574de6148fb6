// The table of an instruction set's convolutions, gates and gated blocks for training.
//
// Included inside an instruction set's namespace, after their implementations.

template <class Real>
static const ConvKernels kConvKernels = {
    {VectorOf<Real>::lanes, kConvRows, kConvVectors * VectorOf<Real>::lanes},
    sizeof(Real),
    &packed_weights,
    &weight_sums,
    &conv_pack<Real>,
    &conv_forward<Real>,
    &conv_backward<Real>,
    &conv_finish<Real>,
    &gate_planes<Real>,
    &gate_planes_gradient<Real>,
    &block_pack<Real>,
    &block_forward<Real>,
    &block_backward<Real>,
    &block_finish<Real>,
};
