"""What a state says of the world outside: linear readers with their controls."""
