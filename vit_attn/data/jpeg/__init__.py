"""Boxes of baseline JPEGs (ITU-T T.81), decoded without the rest: head -> Huffman codes -> cosine transform -> RGB."""
