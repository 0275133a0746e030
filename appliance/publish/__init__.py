"""What comes on a stick: reading and verifying it, planning, seeding, and building the wheelhouse."""
