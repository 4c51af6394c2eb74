"""The C++ kernels, and the script that compiles them."""
