"""What a strategy works on: pieces of training and scoring, each noted and priced."""
