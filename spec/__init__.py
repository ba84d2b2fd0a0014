"""What the hardware, the golden model and the driver must agree on, said once."""
