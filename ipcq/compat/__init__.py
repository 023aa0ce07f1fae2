"""Drop-in faces of queues that people use now."""
