"""The ONNX target: onnxruntime on the desktop's CPU. Its toolkits are imported nowhere else."""
