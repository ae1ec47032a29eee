"""What pages do: signing in, and acting on the forms they show. `reports` renders them, and acts on nothing."""
