"""What other runtimes read: GGUF for llama.cpp, ONNX for ONNX Runtime and OpenVINO. Each writer needs packages of its own."""
