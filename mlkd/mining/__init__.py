"""Mining of a user's own two files: sentences, blocks of vectors and neighbours on disk, and the pairs found."""
