"""Learning from rollouts: collecting, advantages, minibatches and losses."""
