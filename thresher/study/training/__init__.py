"""Does diversity pay? Fine-tunes the model on what the study drew, and compares three training sets."""
