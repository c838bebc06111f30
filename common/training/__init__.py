"""Training: the loop, and the devices and machines it runs on."""
