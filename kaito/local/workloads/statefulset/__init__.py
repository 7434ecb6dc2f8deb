"""StatefulSet: pods with a number, a name that stays and storage of their own."""
