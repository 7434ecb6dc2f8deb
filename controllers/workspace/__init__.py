"""The Workspace controller: a short manifest becomes nodes and a serving workload."""
