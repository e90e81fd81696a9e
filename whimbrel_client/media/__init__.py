"""Files: sealed here, brought to the store under grants of the mesh, fetched, checked and opened.

What leaves the device is ciphertext under a key that only the message tells. What appears under a
file's name is what was sent, whole, or nothing does.
"""
