"""The commands of `freshrec`, one module each. Nothing heavy is imported at module level."""
