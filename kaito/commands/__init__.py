"""The commands, one module each. At module level they import only the standard library and typer, so that
``kaito --help`` and completion stay fast; what a command needs is imported when it runs."""
