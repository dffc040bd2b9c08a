"""What `colorize doctor` looks at: the installation, the machine, its ports, a cluster and the models. Facts are read, then judged."""
