"""Translations of ONNX nodes, one file per family, found by `asyncnet_gpu.onnx.mapping`."""
