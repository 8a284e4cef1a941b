"""How `nano` is made from nothing: its tokenizer, the oracle's tokens, the dense losses, and the stages."""
