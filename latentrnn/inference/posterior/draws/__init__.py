"""What a posterior draws: rollouts of a fitted model, sampled chunk by chunk."""
