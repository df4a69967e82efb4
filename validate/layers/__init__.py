"""Inside a network: tensors of the artifact beside the outputs of torch modules."""
