"""DNA task: predict the genes of a sequence, base by base."""
