"""How operators of ours are written as ONNX nodes where the two differ; one file per family.

``WRITERS`` of a file maps our operator's name to a function of a `asyncnet_gpu.onnx.export.Writer`.
What has no entry and is not an ONNX node as it stands cannot be exported.
"""
