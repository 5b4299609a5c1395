"""What can end an access from outside the policy: locks now, levels later."""
