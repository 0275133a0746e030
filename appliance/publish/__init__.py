"""Changes of what the site serves: reading a medium, the plan, seeding, rollback, and what operators push."""

__all__ = ["approval", "publisher", "pushes", "rollback", "seed"]
