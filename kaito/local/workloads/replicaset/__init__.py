"""ReplicaSet: keeps a number of equal pods alive."""
