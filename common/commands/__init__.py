"""Commands: settings, command lines, reports and the release of a trained model."""
