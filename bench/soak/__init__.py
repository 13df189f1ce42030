"""Many clients, servers that are killed all the time, and a look at what is left of it afterwards."""
